#!/usr/bin/env python3
"""Writes the fixtures beside it with the reference implementation: pip install numpy torch safetensors.

  make_fixtures.py FOLDER                     writes *.safetensors there
  make_fixtures.py --check FILE.safetensors   prints what the reference implementation reads from it

Byte i of a tensor is (7 * i + length of its name) % 256; booleans are the lowest bit of that.
"""
import sys

import numpy
import safetensors
import safetensors.numpy
import safetensors.torch
import torch


def data(name, count, boolean=False):
    values = (numpy.arange(count) * 7 + len(name)) % 256
    return (values % 2 if boolean else values).astype(numpy.uint8)


def of_numpy(name, dtype, *shape):
    size = int(numpy.prod(shape, dtype=int)) * numpy.dtype(dtype).itemsize
    return data(name, size, dtype == "bool").view(dtype).reshape(shape)


def of_torch(name, dtype, *shape):
    size = int(numpy.prod(shape, dtype=int)) * dtype.itemsize
    return torch.from_numpy(data(name, size)).view(dtype).reshape(shape)


def write(folder):
    shapes = {"bool": (3,), "uint8": (5,), "int8": (2, 3), "int16": (3, 1), "uint16": (1, 2, 3), "int32": (2, 2),
              "uint32": (4,), "int64": (), "uint64": (1,) * 8, "float16": (7,), "float32": (2, 3, 2), "float64": (2,)}
    tensors = {name: of_numpy(name, name, *shape) for name, shape in shapes.items()}
    tensors["none"] = of_numpy("none", "float32", 0, 3)
    tensors['a "quoted" \\ näme \U0001f600'] = of_numpy('a "quoted" \\ näme \U0001f600'.encode(), "uint8", 2)
    metadata = {"format": "np", "line\nbreak": "tab\tand \u00e9", "": "empty"}
    safetensors.numpy.save_file(tensors, folder + "/numpy.safetensors", metadata)

    shapes = {torch.bfloat16: (3, 2), torch.float8_e4m3fn: (5,), torch.float8_e5m2: (2, 2)}
    tensors = {str(dtype): of_torch(str(dtype), dtype, *shape) for dtype, shape in shapes.items()}
    safetensors.torch.save_file(tensors, folder + "/torch.safetensors")
    tensors = {"scale": torch.zeros(4, dtype=torch.float8_e8m0fnu)}
    safetensors.torch.save_file(tensors, folder + "/e8m0.safetensors")
    safetensors.numpy.save_file({}, folder + "/empty.safetensors")
    tensors = {"f4": torch.from_numpy(data("f4", 6)).view(torch.float4_e2m1fn_x2).reshape(3, 2)}
    safetensors.torch.save_file(tensors, folder + "/f4.safetensors")


def check(path):
    with open(path, "rb") as file:
        for name, tensor in safetensors.deserialize(file.read()):
            print(repr(name), tensor["dtype"], tensor["shape"], bytes(tensor["data"]).hex())
    with safetensors.safe_open(path, "np") as file:
        print(file.metadata())


if __name__ == "__main__":
    check(sys.argv[2]) if sys.argv[1] == "--check" else write(sys.argv[1])
