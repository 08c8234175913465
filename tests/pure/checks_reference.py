# SPDX-License-Identifier: Apache-2.0
"""The checks of sums once more, slowly and from the specification alone; shares no code with the package.

What makes a key's stream is handed in by the reference of a scheme, as bytes by key and count.
"""

P = 2**61 - 1
COLUMNS = 512


def element(data):
    return int.from_bytes(data, "little") % P


def elements(stream, key, count):
    data = stream(key, 16 * count)
    return [element(data[16 * i : 16 * i + 16]) for i in range(count)]


def check_of(stream, key, places, words, members):
    """The check of signed words that these members' words, or one member's own, add up to."""
    rows = -(-len(words) // COLUMNS)
    drawn = elements(stream, key, places + COLUMNS + rows)
    offsets, columns, a = drawn[:places], drawn[places : places + COLUMNS], drawn[places + COLUMNS :]
    product = sum(a[k // COLUMNS] * columns[k % COLUMNS] * word for k, word in enumerate(words))
    return (product + sum(offsets[i] for i in members)) % P


def pad_of(stream, key, size, bits):
    """What a pad's key adds to a check: the 16 bytes behind those for the words."""
    length = size * bits // 8
    return element(stream(key, length + 16)[length:])


def signed(words, bits):
    return [(w + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for w in words]
