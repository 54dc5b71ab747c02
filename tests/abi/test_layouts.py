"""Xen's public interface as data: every module loads alone, and the layouts have the sizes of Xen's structures."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from struct import calcsize

import pytest

import pvh.abi
from pvh.abi import hvm_param, memory, shared_info, start_info, vcpu_op, xen_version

SIZES = {
    "hvm_start_info of Draft C": (start_info.DRAFT_C, 20),
    "hvm_start_info version 0": (start_info.V0, 40),
    "hvm_start_info version 1": (start_info.V1, start_info.READABLE_SIZE),
    "module of Draft C": (start_info.DRAFT_C_MODULE, 8),
    "hvm_modlist_entry": (start_info.MODULE, 32),
    "hvm_memmap_table_entry": (start_info.MEMMAP_ENTRY, 24),
    "vcpu_time_info": (shared_info.TIME_INFO, 32),
    "xen_hvm_param": (hvm_param.PARAM, 16),
    "xen_feature_info": (xen_version.FEATURE_INFO, 8),
    "vcpu_register_vcpu_info": (vcpu_op.REGISTER_INFO, 16),
    "e820entry": (memory.E820_ENTRY, 20),
    "xen_memory_map, 32-bit": (memory.MEMORY_MAP_32, 8),
    "xen_memory_map, 64-bit": (memory.MEMORY_MAP_64, 16),
    "xen_add_to_physmap, 32-bit": (memory.ADD_TO_PHYSMAP_32, 16),
    "xen_add_to_physmap, 64-bit": (memory.ADD_TO_PHYSMAP_64, 24),
}


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(pvh.abi.__path__)])
def test_each_module_is_data_that_loads(name: str) -> None:
    assert import_module(f"pvh.abi.{name}").__doc__


@pytest.mark.parametrize(("layout", "size"), SIZES.values(), ids=SIZES)
def test_sizes_are_those_of_the_public_headers(layout: str, size: int) -> None:
    assert calcsize(layout) == size
