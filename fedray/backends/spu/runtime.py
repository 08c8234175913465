# SPDX-License-Identifier: Apache-2.0
"""JAX functions on shares, by the library of the extra `fedray[spu]`. The only file that imports `spu` or, for it, JAX.

Knows one compute party's shares, the links to the others, and a program. Does not know who owns what; opens nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.spu.links import countable, sent, since
from fedray.backends.spu.program import (
    LINK_DEFAULTS,
    Program,
    RuntimeSettings,
    bind_static,
    combination,
    first_line,
    public,
    shifted,
)
from fedray.errors import DataError, PlanError, ProtocolError
from fedray.protocol.spu.form import Form, Layout
from fedray.protocol.spu.secret import Secret

_IMPORTING = threading.Lock()  # inline, the parties are threads of one process


class SpuRuntime:
    """One compute party's runtime.

    Args:
        layout: How shares lie.
        place: Which compute party this is.
        settings: What all of them agree on.

    Attributes:
        sent: Whom the last program sent how many bytes over its links, also where it failed; None where this system
            does not count them.
    """

    def __init__(self, layout: Layout, place: int, settings: RuntimeSettings) -> None:
        self._layout, self._place, self._settings = layout, place, settings
        self._link: Any = None
        self._machine: Any = None
        self._left: dict[str, int] = {}  # what links had sent that are closed
        self.sent: Mapping[str, int] | None = {}

    @staticmethod
    def check_installed(party: str) -> None:
        """Checks that programs can be run in this process.

        Raises:
            PlanError: They cannot; the message names the extra.
        """
        if importlib.util.find_spec("spu") is None or importlib.util.find_spec("jax") is None:
            raise PlanError(
                f"party {party!r} cannot run functions on shares: the package 'spu' is not installed there. Install "
                "the extra with pip install 'fedray[spu]' (CPython 3.11 on Linux or Apple silicon); sums, means and "
                "public factors of shared values need no extra"
            )

    @staticmethod
    def check_address(party: str, address: str) -> None:
        """Checks that this process can listen where the other compute parties will look for it.

        Raises:
            PlanError: It cannot. The others would wait for it for minutes.
        """
        host, _, port = address.rpartition(":")
        try:
            socket.create_server((host, int(port))).close()
        except (ValueError, OverflowError, OSError) as error:
            raise PlanError(
                f"party {party!r} cannot listen at address={address!r} ({error}); expected host:port of its own "
                "machine, the port free. Give the SPU another address there"
            ) from None

    def run(self, program: Program, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Secret]:
        """Runs a program and returns this compute party's shares of its results.

        Args:
            program: What to run; the same at all compute parties.
            args: Its arguments; `Secret`s in nested lists, tuples and dicts, everything else is public.
            kwargs: Its keyword arguments.

        Raises:
            DataError: The program cannot be compiled, or does not return what it says.
            ProtocolError: The compute parties would run different programs, or lost each other.
        """
        before = self._sent() if self._machine is not None else {}
        try:
            return self._run(program, args, kwargs)
        finally:
            self.sent = since(before, self._left or self._sent()) if countable() else None

    def _run(self, program: Program, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Secret]:
        machine = self._connected()
        compiled, shapes, inputs = self._compiled(program, args, kwargs)
        self._check_same(program, compiled)
        names = list(compiled.input_names)
        try:
            for name, value in zip(names, inputs, strict=True):
                machine.set_var(name, self._share(value))
            machine.run(compiled)
            found = [machine.get_var(name) for name in compiled.output_names]
            # Whoever is here has had all that it waited for: none of this program's bytes are counted with the next.
            self._link.barrier()
        except RuntimeError as error:
            self.close()  # the compute parties may be at different steps of the program now
            raise ProtocolError(f"{program.name} failed among the compute parties: {first_line(error)}") from None
        for name in [*names, *compiled.output_names] if self._machine is not None else []:
            machine.del_var(name)
        return [self._secret(share, shape) for share, shape in zip(found, shapes, strict=True)]

    @property
    def peers(self) -> list[str]:
        """Whom programs send messages to: the other compute parties, and whoever else deals triples."""
        return [name for place, (name, _) in enumerate(self._ends()) if place != self._place]

    def close(self) -> None:
        """Drops the links; the next program makes new ones. Does not wait for the other ends, which may be gone."""
        self._left = self._sent()
        self._link = self._machine = None

    def _sent(self) -> dict[str, int]:
        return sent(self._ends(), self._place) if countable() else {}

    def _ends(self) -> list[tuple[str, str]]:
        dealer = self._settings.options.get("ttp_beaver_config", {}).get("server_host")
        # No party of the session: the ledger names it by its address.
        return [*self._settings.addresses, *([(f"dealer {dealer}", dealer)] if dealer else [])]

    # Links.

    def _connected(self) -> Any:
        if self._machine is None:
            self._left = {}
            libspu, settings = _library(), self._settings
            description = libspu.link.Desc()
            for name, value in {**LINK_DEFAULTS, **settings.link}.items():
                setattr(description, name, value)
            for party, address in settings.addresses:
                description.add_party(party, address)
            if settings.tls:
                _encrypt(description, settings.tls[self._place])
            try:
                self._link = libspu.link.create_brpc(description, self._place)
            except RuntimeError as error:
                where = settings.addresses[self._place][1]
                raise ProtocolError(
                    f"no links from {where} to the other compute parties: {first_line(error)}"
                ) from None
            import spu

            self._machine = spu.Runtime(self._link, self._config(libspu))
        return self._machine

    def _config(self, libspu: Any) -> Any:
        layout = self._layout
        config = libspu.RuntimeConfig(
            protocol=getattr(libspu.ProtocolKind, layout.protocol),
            field=getattr(libspu.FieldType, f"FM{layout.bits}"),
            fxp_fraction_bits=layout.fraction,
        )
        for name, value in self._settings.options.items():
            _set_option(libspu, config, name, value)
        return config

    def _check_same(self, program: Program, compiled: Any) -> None:
        own = hashlib.sha256(compiled.SerializeToString()).hexdigest()
        try:
            others = self._link.all_gather(own)
        except RuntimeError as error:
            self.close()
            raise ProtocolError(f"{program.name}: a compute party did not come: {first_line(error)}") from None
        if len(set(others)) != 1:
            raise ProtocolError(
                f"{program.name} was compiled differently by the compute parties; they need the same versions of jax "
                "and spu, and a function that depends on nothing but its arguments"
            )

    # Programs.

    def _compiled(
        self, program: Program, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, list[Any], list[Any]]:
        """Returns the executable, shapes and types of its results, and its inputs in order."""
        libspu = _library()
        import jax
        from spu.utils import frontend

        function, args, kwargs = bind_static(program, args, kwargs)
        with jax.enable_x64(True):
            leaves, tree = jax.tree_util.tree_flatten((list(args), dict(kwargs)), is_leaf=_is_secret)
            leaves = [leaf if isinstance(leaf, Secret) else public(program, leaf) for leaf in leaves]
            back = [self._surplus(leaf) for leaf in leaves]

            def flat(*given: Any) -> Any:
                restored = [shifted(value, bits) for value, bits in zip(given, back, strict=True)]
                positional, named = jax.tree_util.tree_unflatten(tree, restored)
                return _results(program, function(*positional, **named))

            flat.__name__ = program.name
            described: Any = jax.ShapeDtypeStruct
            hidden, known = libspu.Visibility.VIS_SECRET, libspu.Visibility.VIS_PUBLIC
            try:
                compiled, shapes = frontend.compile(
                    frontend.Kind.JAX,
                    flat,
                    [described(*_shape_of(leaf)) for leaf in leaves],
                    {},
                    [f"in{place}" for place in range(len(leaves))],
                    [hidden if isinstance(leaf, Secret) else known for leaf in leaves],
                    lambda results: [f"out{place}" for place in range(len(results))],
                )
            except DataError:
                raise
            except Exception as error:  # whatever JAX or the compiler says of the user's function
                raise DataError(f"{program.name} cannot be compiled: {type(error).__name__}: {error}") from error
        return compiled, list(shapes), leaves

    def _surplus(self, leaf: Any) -> int:
        """Returns how many bits after the point a shared float has beyond what programs expect."""
        if not isinstance(leaf, Secret) or not leaf.form.real or leaf.form.combine != "add":
            return 0
        return leaf.form.fraction - self._layout.fraction

    # Shares, as the library writes them.

    def _share(self, value: Any) -> Any:
        libspu, layout = _library(), self._layout
        if not isinstance(value, Secret):
            import spu

            made = spu.Io(layout.parties, self._config(libspu)).make_shares(value, libspu.Visibility.VIS_PUBLIC)
            return made[self._place]
        form, meta, chunk, share = value.form, libspu.ValueMeta(), libspu.ValueChunk(), libspu.Share()
        meta.data_type = getattr(libspu.DataType, _DATA_TYPES[form.dtype])
        meta.visibility = libspu.Visibility.VIS_PUBLIC if form.combine == "public" else libspu.Visibility.VIS_SECRET
        meta.shape = list(form.shape)
        meta.storage_type = form.storage or f"{layout.protocol.lower()}.AShr<FM{layout.bits}>"
        content = np.ascontiguousarray(value.shares).tobytes()
        chunk.total_bytes, chunk.chunk_offset, chunk.content = len(content), 0, content
        share.meta, share.share_chunks = meta.SerializeToString(), [chunk.SerializeToString()]
        return share

    def _secret(self, share: Any, described: Any) -> Secret:
        libspu, layout = _library(), self._layout
        meta = libspu.ValueMeta()
        meta.ParseFromString(share.meta)
        content = bytearray()
        for part in share.share_chunks:
            chunk = libspu.ValueChunk()
            chunk.ParseFromString(part)
            content += chunk.content
        combine, dtype = combination(meta.storage_type), np.dtype(described.dtype)
        shape = tuple(int(n) for n in described.shape)
        fraction = layout.fraction if dtype.kind == "f" else 0
        storage = "" if combine == "add" else str(meta.storage_type)
        form = Form(shape, str(dtype), fraction, combine=combine, storage=storage)
        return Secret(form, self._words(content, form))

    def _words(self, content: bytearray, form: Form) -> NDArray[Any]:
        """Returns what the library holds of a value, with the axes that `Secret.shares` has."""
        copies = 2 if self._layout.replicated and form.combine != "public" else 1
        count = int(np.prod(form.shape, dtype=np.int64)) * copies
        width = len(content) // count if count else self._layout.bits // 8
        tail = ((2,) if copies == 2 else ()) + ((2,) if width == 16 else ())
        return np.frombuffer(content, f"<u{min(width, 8)}").reshape(form.shape + tail).copy()


_DATA_TYPES: Mapping[str, str] = {
    "bool": "DT_I1",
    **{f"{sign}int{bits}": f"DT_{kind}{bits}" for sign, kind in (("", "I"), ("u", "U")) for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"DT_F{bits}" for bits in (16, 32, 64)},
}


def _library() -> Any:
    with _IMPORTING:
        return _imported()


@cache
def _imported() -> Any:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from spu import libspu

    # Its links write on stderr when they begin to listen and when they end, and on stdout when they try again. That
    # buries the user's own lines, and what there is to say of a failure is in the error that it raises, too.
    options = libspu.logging.LogOptions()
    options.enable_console_logger, options.log_level = False, libspu.logging.LogLevel.ERROR
    # It insists on a file. None is kept, or it would try to rename the system's own when that is full.
    options.system_log_path, options.max_log_file_count = os.devnull, 0
    libspu.logging.setup_logging(options)
    return libspu


def _results(program: Program, result: Any) -> list[Any]:
    import jax.numpy as jnp

    listed = list(result) if isinstance(result, tuple | list) else [result]
    if len(listed) != program.results or (program.results == 1 and isinstance(result, tuple | list)):
        found = f"{len(listed)} in a {type(result).__name__}" if isinstance(result, tuple | list) else "one"
        raise DataError(f"{program.name}: expected {program.results} results (num_returns), found {found}")
    if any(isinstance(item, tuple | list | dict) for item in listed):
        raise DataError(f"{program.name}: each result is one array; return several with num_returns, not nested")
    return [jnp.asarray(item) for item in listed]


def _is_secret(leaf: Any) -> bool:
    return isinstance(leaf, Secret)


def _shape_of(leaf: Any) -> tuple[tuple[int, ...], Any]:
    return (leaf.form.shape, np.dtype(leaf.form.dtype)) if isinstance(leaf, Secret) else (leaf.shape, leaf.dtype)


def _set_option(libspu: Any, config: Any, name: str, value: Any) -> None:
    if name == "ttp_beaver_config":
        server = libspu.TTPBeaverConfig()
        for key, item in value.items():
            setattr(server, key, item)
        value = server
    elif isinstance(value, str) and hasattr(libspu.RuntimeConfig, value):
        value = getattr(libspu.RuntimeConfig, value)
    setattr(config, name, value)


def _encrypt(description: Any, paths: Mapping[str, str]) -> None:
    """Turns on TLS on both ends of every link: each side shows its certificate and checks the other's."""
    description.enable_ssl = True
    for side in (description.client_ssl_opts, description.server_ssl_opts):
        side.cert.certificate_path = paths["certificate"]
        side.cert.private_key_path = paths["private_key"]
        side.verify.ca_file_path = paths["authority"]
        side.verify.verify_depth = 1
