"""How Numba is made to compile each part of a kernel once. Without this a first start takes twice as long.

Numba compiles a function that is called from kernels as if it were called from Python: it optimises it, together with
a copy of everything that it calls, and makes machine code of all that, once again at every level of calls. Here only
kernels get that far. A part is kept as it is before, and optimised within the kernel that it ends up in: 26 of 53 s of
processor time were spent on LLVM's passes and on machine code, and 11 s are left.

Three smaller things, which Numba leaves no other way to have:

- All functions look alike to those that they call. Numba compiles the implementation of an overload (and looks for
  it, hundreds of times) anew for each set of options of its callers, and has a part inherit being inlined from the
  function that happens to be compiled when it is first met. (20 s instead of 27 s.)
- Within a kernel its parts are private, so that LLVM may leave out arguments that a part does not use: of the some two
  hundred words of a ledger's state a call passes some twenty. So only what is marked as inlined is, and a transfer
  takes the same 0.1 us as before, a hold or capture 0.22 us instead of 0.29, one in a chain 0.20 instead of 0.41.
- The garbage collector rests meanwhile: it goes through all that the compiler keeps, again and again, and frees next
  to nothing. (A tenth of the time.)

And what is compiled already is loaded without all that only the compiler needs (`KernelCache`, and what stands behind
the imports).

This reaches into Numba beyond what it documents; `requirements.lock` pins it, and tests of the kernels cover all that
is used here.
"""

import gc
import logging
from functools import cache
from pickle import UnpicklingError
from typing import Any

import numpy as np
from llvmlite.binding import Linkage, ffi, parse_bitcode
from numba.core import entrypoints, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.errors import NumbaNotImplementedError
from numba.extending import typeof_impl
from numba.np.numpy_support import from_dtype, map_layout

# Numba looks through all that is installed for additions to it. There are none here, and each start would look.
entrypoints._already_initialized = True
# Each of thousands of calls of LLVM would be told to two functions, which tell others, who do not listen.
ffi.lib._lock._cblist.clear()

_log = logging.getLogger("bezant")
_type_of_any_array = typeof_impl.dispatch(np.ndarray)


def _type_of_array(array: np.ndarray[Any, Any], context: Any) -> Any:
    """As before, but what is an array and nothing else is not asked whether it is a masked one: NumPy would load all
    that there is for those (12 ms), and each array would have its type made anew."""
    if type(array) is not np.ndarray or (element := _element_type(array.dtype)) is None:
        return _type_of_any_array(array, context)
    return types.Array(element, array.ndim, map_layout(array), readonly=not array.flags.writeable)


@cache
def _element_type(dtype: np.dtype[Any]) -> Any:
    """The type of what is in an array; None if there is none for it."""
    try:
        return from_dtype(dtype)
    except NumbaNotImplementedError:
        return None


typeof_impl.register(np.ndarray, _type_of_array)


class _PartLibrary(JITCodeLibrary):  # type: ignore[misc]  # Numba has no types
    """The code of a part with that of what it calls, neither optimised as a whole nor ever run by itself."""

    def finalize(self) -> None:
        """Link in what the part calls; nothing can be added any more."""
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """0, which says that there is no machine code of that name."""
        return 0

    @property
    def codegen(self) -> Any:
        """Who is told the environment of the code, which only code that calls Python needs: nobody."""
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """See `codegen`."""


class _KernelLibrary(JITCodeLibrary):  # type: ignore[misc]  # Numba has no types
    """The code of a kernel and of all its parts."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.linkonce_odr:
                function.linkage = Linkage.internal
        super()._optimize_final_module()


class KernelCompiler(Compiler):  # type: ignore[misc]  # Numba has no types
    """Compiles what is called from Python."""

    library_class: type[JITCodeLibrary] = _KernelLibrary

    def __init__(self, typing: Any, target: Any, library: Any, *others: Any) -> None:
        if library is None:
            library = self.library_class(target.codegen(), self.library_class.__name__)
            library.enable_object_caching()
        super().__init__(typing, target, library, *others)
        self._flags = self.state.flags

    def _compile_core(self) -> Any:
        """Compile with the garbage collector at rest, under flags that look the same for all functions."""
        flags = self._flags.copy()
        flags.forceinline = False
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        self.state.flags = flags
        collected = gc.isenabled()
        gc.disable()
        try:
            return super()._compile_core()
        finally:
            if collected:
                gc.enable()

    def define_pipelines(self) -> Any:
        """The same steps as ever. By now those flags are where functions that are met look for them; these are ours."""
        self.state.flags = self._flags
        return super().define_pipelines()


class PartCompiler(KernelCompiler):
    """Compiles what is called from kernels only."""

    library_class = _PartLibrary


class _LoadedLibrary(JITCodeLibrary):  # type: ignore[misc]  # Numba has no types
    """The machine code of a kernel from the cache. Its bitcode, which only a kernel that calls it and is still to be
    compiled needs, is left as it is until then: to read all of it takes longer than all else of loading."""

    _bitcode: bytes
    _shared_module: Any

    @classmethod
    def _unserialize(cls, codegen: Any, state: Any) -> Any:
        name, symbols, (machine_code, bitcode) = state
        library = cls(codegen, name)
        library.enable_object_caching()
        library._set_compiled_object(machine_code)
        library._finalize_final_module()
        codegen._engine._defined_symbols |= symbols
        library._bitcode = bitcode
        return library

    def _get_module_for_linking(self) -> Any:
        if self._shared_module is None:
            self._shared_module = parse_bitcode(self._bitcode)
        return self._shared_module


class _KernelLocator(UserProvidedCacheLocator):  # type: ignore[misc]  # Numba has no types
    """The folder for exactly this code, may it be written to or not. Numba would turn to one that may, and believe what
    it finds there if the one file that a kernel is in has not changed, whatever that imports."""

    @classmethod
    def from_function(cls, function: Any, file: str) -> Any:
        """See `KernelCache.save_overload` for a folder that is not to be written to."""
        return cls(function, file)


class _KernelCacheImpl(CompileResultCacheImpl):  # type: ignore[misc]  # Numba has no types
    """What is kept of a kernel: the same, with the names of its symbols instead of the word "object"."""

    _locator_classes = (_KernelLocator,)

    def reduce(self, compiled: Any) -> Any:
        """See `_LoadedLibrary`."""
        (name, _, data), *others = super().reduce(compiled)
        module = compiled.library._get_module_for_linking()
        found = (*module.functions, *module.global_variables)
        return (name, {one.name for one in found if not one.is_declaration}, data), *others

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        """See `_LoadedLibrary`."""
        codegen = target_context.codegen()
        codegen._library_class = _LoadedLibrary
        try:
            return super().rebuild(target_context, payload)
        finally:
            del codegen._library_class


class KernelCache(FunctionCache):  # type: ignore[misc]  # Numba has no types
    """Kernels on disk. Numba gathers all that it knows to compile before it looks for a function here, which takes
    three times as long as to load the kernels of a node; whoever finds nothing here compiles, and gathers it then."""

    _impl_class = _KernelCacheImpl

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The kernel for these types; None if it is not here, or nobody may look: `save_overload` tells."""
        try:
            with self._guard_against_spurious_io_errors():
                return self._load_overload(signature, target)
        except (NotADirectoryError, PermissionError):
            return None
        except (EOFError, UnpicklingError):  # The power went before it was on the disk.
            self._forget()
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep a kernel. One that cannot be kept serves this process all the same."""
        try:
            super().save_overload(signature, compiled)
        except OSError as error:
            _tell_unkept(str(error.strerror))

    def _forget(self) -> None:
        """Have nothing here, to be written anew."""
        try:
            self.flush()
        except OSError as error:
            _tell_unkept(str(error.strerror))


@cache
def _tell_unkept(reason: str) -> None:
    """Once a process: it is the same for all kernels."""
    _log.warning("bezant: kernels are compiled anew at each start, since they cannot be kept: %s", reason)
