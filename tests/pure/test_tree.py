# SPDX-License-Identifier: Apache-2.0
"""Tree: nested arrays keep their places, have names, and share their rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.errors import DataError
from fedray.tree import Tree, common_rows

nests = st.recursive(
    st.integers() | st.none(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(nests)
def test_changing_nothing_changes_nothing(nest):
    tree = Tree(nest)
    assert tree.map(lambda leaf: leaf) == tree.rebuild(tree.leaves()) == tree
    assert tree.same_form(tree.map(str))
    assert len(tree.names()) == len(tree.leaves())
    assert len(set(tree.names())) == len(tree.names())


@given(nests, nests)
def test_two_trees_of_one_form_have_leaves_of_the_same_names(one, other):
    if Tree(one).same_form(Tree(other)):
        assert Tree(one).names() == Tree(other).names()


def test_leaves_are_called_by_their_path_and_dicts_go_by_sorted_keys():
    tree = Tree({"image": 1, "age": [2, (3,)]}, "x")
    assert tree.named() == [("x['age'][0]", 2), ("x['age'][1][0]", 3), ("x['image']", 1)]
    assert Tree({"age": [2, (3,)], "image": 1}, "x").leaves() == tree.leaves()
    assert tree.rebuild([5, 6, 7]).nest == {"age": [5, (6,)], "image": 7}
    assert Tree(4, "x").named() == [("x", 4)]


def test_a_list_and_a_tuple_are_one_form_and_a_dict_is_another():
    assert Tree([1, 2]).same_form(Tree((3, 4)))
    assert not Tree([1, 2]).same_form(Tree([1, 2, 3]))
    assert not Tree([1, 2]).same_form(Tree({"0": 1, "1": 2}))
    assert not Tree([1]).same_form(Tree(1))
    assert (Tree([1]).nested, Tree({}).nested, Tree(1).nested) == (True, True, False)


def test_all_leaves_share_their_rows():
    x, y = Tree({"a": np.zeros((3, 2)), "b": np.zeros(3)}, "x"), Tree(np.zeros(3), "y")
    assert x.rows == y.rows == common_rows([x, y]) == 3
    with pytest.raises(DataError, match=r"same length, found rows of x\['a'\]: 3, x\['b'\]: 4"):
        _ = Tree({"a": np.zeros((3, 2)), "b": np.zeros(4)}, "x").rows
    with pytest.raises(DataError, match=r"same length, found rows of x\['a'\]: 3, x\['b'\]: 3, y: 2"):
        common_rows([x, Tree(np.zeros(2), "y")])


def test_rows_are_asked_of_arrays_only():
    with pytest.raises(DataError, match="x: expected at least one array, found none"):
        _ = Tree([], "x").rows
    with pytest.raises(DataError, match=r"x\[1\]: expected an array with rows, found float without an axis"):
        _ = Tree([np.zeros(2), 1.0], "x").rows


def test_keys_are_strings_and_leaves_are_as_many_as_before():
    with pytest.raises(DataError, match=r"x\[0\]: expected a dict with string keys"):
        Tree([{1: 2}], "x")
    with pytest.raises(DataError, match="x: expected 2 leaves, found 1"):
        Tree([1, 2], "x").rebuild([1])
