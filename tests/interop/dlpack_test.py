"""Tensors between tmcore and NumPy or PyTorch, both ways, without a copy.

dlpack_test.py numpy|torch SHIM
"""

import ctypes
import importlib
import sys
import weakref

shim = ctypes.CDLL(sys.argv[2])
shim.shim_export.restype = ctypes.c_void_p
shim.shim_data.restype = ctypes.c_void_p
shim.shim_live.restype = ctypes.c_int64
shim.shim_make.argtypes = [ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64]
shim.shim_slice.argtypes = [ctypes.c_int64, ctypes.c_int64]
shim.shim_import.argtypes = [ctypes.c_void_p]
shim.shim_delete.argtypes = [ctypes.c_void_p]
for name in ("shim_dtype", "shim_layout", "shim_error"):
    getattr(shim, name).restype = ctypes.c_char_p

python = ctypes.pythonapi
destructor_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
python.PyCapsule_New.restype = ctypes.py_object
python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, destructor_type]
# The destructor sees a capsule that is dying: as an address, so that nothing counts a reference.
python.PyCapsule_IsValid.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
python.PyCapsule_GetPointer.restype = ctypes.c_void_p
python.PyCapsule_GetPointer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
python.PyCapsule_SetName.argtypes = [ctypes.c_void_p, ctypes.c_char_p]

FRESH = b"dltensor"
USED = b"used_dltensor"
deleted_unused = 0


def expect(got, wanted):
    if got != wanted:
        raise AssertionError(f"{got!r}, and not {wanted!r}")


def check(status):
    if status != 0:
        raise AssertionError(shim.shim_error().decode())


@destructor_type
def drop_capsule(capsule):
    global deleted_unused
    if python.PyCapsule_IsValid(capsule, FRESH):
        shim.shim_delete(python.PyCapsule_GetPointer(capsule, FRESH))
        deleted_unused += 1


class Exported:
    """The shim's tensor, for a consumer."""

    def __dlpack__(self, stream=None):
        managed = shim.shim_export()
        if not managed:
            raise BufferError(shim.shim_error().decode())
        return python.PyCapsule_New(managed, FRESH, drop_capsule)

    def __dlpack_device__(self):
        return (1, 0)


def take(producer):
    """Lets the shim take a tensor of Python's over."""
    capsule = producer.__dlpack__()
    check(shim.shim_import(python.PyCapsule_GetPointer(id(capsule), FRESH)))
    python.PyCapsule_SetName(id(capsule), USED)


def floats():
    return ctypes.cast(shim.shim_data(), ctypes.POINTER(ctypes.c_float))


def layout():
    return shim.shim_layout().decode()


class Numpy:
    import_from = staticmethod(lambda exported: numpy.from_dlpack(exported))
    writes_imports = False  # NumPy 1.24 marks what it imports read-only
    dtypes = {
        **{f"int{n}": f"i{n}" for n in (8, 16, 32, 64)},
        **{f"uint{n}": f"u{n}" for n in (8, 16, 32, 64)},
        **{f"float{n}": f"f{n}" for n in (16, 32, 64)},
    }

    @staticmethod
    def counting(rows, columns, dtype="float32"):
        return numpy.arange(rows * columns).astype(dtype).reshape(rows, columns)

    @staticmethod
    def watch(array):
        seen = weakref.ref(array if array.base is None else array.base)  # who has the memory
        return lambda: seen() is None

    @staticmethod
    def refused(array):
        return array[::-1], "negative"

    @staticmethod
    def dtype_of(array):
        return str(array.dtype)

    @staticmethod
    def address(array):
        return array.ctypes.data

    @staticmethod
    def strides(array):
        return tuple(stride // array.itemsize for stride in array.strides)


class Torch:
    import_from = staticmethod(lambda exported: torch.from_dlpack(exported))
    writes_imports = True
    dtypes = {
        "uint8": "u8",
        **{f"int{n}": f"i{n}" for n in (8, 16, 32, 64)},
        **{f"float{n}": f"f{n}" for n in (16, 32, 64)},
        "bfloat16": "bf16",
    }

    @staticmethod
    def counting(rows, columns, dtype="float32"):
        return torch.arange(rows * columns).to(getattr(torch, dtype)).reshape(rows, columns)

    @staticmethod
    def watch(tensor):
        return torch.multiprocessing.reductions.StorageWeakRef(tensor.storage()).expired

    @staticmethod
    def refused(tensor):
        return torch.view_as_complex(tensor.view(4, 3, 2)), "type code 5"

    @staticmethod
    def dtype_of(tensor):
        return str(tensor.dtype).split(".")[1]

    @staticmethod
    def address(tensor):
        return tensor.data_ptr()

    @staticmethod
    def strides(tensor):
        return tensor.stride()


def types_go_both_ways(them):
    for theirs, ours in them.dtypes.items():
        take(them.counting(3, 4, theirs))
        expect(shim.shim_dtype().decode(), ours)
        expect(layout(), "(3,4):(4,1)")
        back = them.import_from(Exported())
        expect(them.dtype_of(back), theirs)
        expect([[float(x) for x in row] for row in back.tolist()],
               [[4.0 * i + j for j in range(4)] for i in range(3)])


def our_memory_is_theirs(them):
    check(shim.shim_make(b"f32", 4, 6))
    for i in range(24):
        floats()[i] = i
    check(shim.shim_slice(1, 2))
    check(shim.shim_transpose())
    first = floats()
    array = them.import_from(Exported())
    shim.shim_release()  # the array alone keeps the memory
    expect(tuple(array.shape), (4, 3))
    expect(them.strides(array), (1, 6))
    expect(them.address(array), ctypes.addressof(first.contents))
    expect(array.tolist(), [[8 + i + 6 * j for j in range(3)] for i in range(4)])
    first[1 + 6 * 2] = -1  # written here, seen there
    expect(float(array[1, 2]), -1.0)
    if them.writes_imports:
        array[0, 1] = 77  # and the other way
        expect(first[6], 77.0)


def their_memory_is_ours(them):
    array = them.counting(4, 6)
    is_gone = them.watch(array)
    part = array[1:, 2:].T
    take(part)
    expect(layout(), "(4,3):(1,6)")
    expect(shim.shim_data(), them.address(array) + 8 * 4)
    floats()[6] = 500  # written here, seen there
    expect(float(array[2, 2]), 500.0)
    array[1, 3] = -3  # and the other way
    expect(floats()[1], -3.0)
    del part, array
    expect(is_gone(), False)  # the shim alone keeps the memory
    expect(floats()[1], -3.0)
    shim.shim_release()
    expect(is_gone(), True)


def what_is_refused_stays_theirs(them):
    array = them.counting(4, 6)
    is_gone = them.watch(array)
    refused, reason = them.refused(array)
    capsule = refused.__dlpack__()
    del refused, array
    if shim.shim_import(python.PyCapsule_GetPointer(id(capsule), FRESH)) == 0:
        raise AssertionError(f"{reason} is accepted")
    expect(reason in shim.shim_error().decode(), True)
    expect(is_gone(), False)
    del capsule  # still fresh: its own destructor calls the deleter
    expect(is_gone(), True)


def unused_capsules_are_deleted(them):
    check(shim.shim_make(b"f32", 2, 2))
    live = shim.shim_live()
    before = deleted_unused
    capsule = Exported().__dlpack__()
    expect(shim.shim_live(), live + 1)
    del capsule
    expect(deleted_unused, before + 1)
    expect(shim.shim_live(), live)


def thousands_of_trips_leak_nothing(them):
    array = them.counting(4, 6)
    is_gone = them.watch(array)
    for trip in range(3000):
        take(array.T)
        back = them.import_from(Exported())
        expect(them.address(back), them.address(array))
        shim.shim_release()
        expect(float(back[5, 3]), 23.0)
        del back
        if trip == 0:  # what a thread keeps for the next time is there now
            live = shim.shim_live()
    expect(shim.shim_live(), live)
    del array
    expect(is_gone(), True)


library = sys.argv[1]
try:
    module = importlib.import_module(library)
except ImportError:
    print(f"{library}: SKIPPED, it is not installed (Debian: python3-{library})")
    sys.exit(0)
globals()[library] = module
for test in (types_go_both_ways, our_memory_is_theirs, their_memory_is_ours,
             what_is_refused_stays_theirs, unused_capsules_are_deleted,
             thousands_of_trips_leak_nothing):
    test({"numpy": Numpy, "torch": Torch}[library])
    shim.shim_release()
    print(f"{library} {module.__version__}: {test.__name__}: passed")
