"""The fake GPUs of tests/fake_nvml: makes, reads and steers the file that they live in (tests/fake_nvml/state.hpp)."""

import json
import mmap
import os
import pathlib
import struct
import time

BOOT = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
MAGIC = 0x314C4D564E454B46
MAX_GPUS = 16
WORDS = ["uuid0", "uuid1", "uuid2", "uuid3", "uuid4", "min_mw", "default_mw", "max_mw", "requested_mw",
         "enforced_before_mw", "set_at_ns", "writes", "refuse", "clamp_mw", "slow_ms", "revert_ms", "lost",
         "lost_after_writes", "block_set_ms", "block_get_ms", "reasons", "refuse_after_writes", "idle_mw", "burn_mw",
         "idle_mc", "burn_mc", "tau_ms", "idle_mhz", "burn_mhz", "burning", "changed_at_ns", "changed_mc", "energy_mj",
         "capped_ns", "pci_bus", "memory_bytes", "not_persistent", "compute_mode", "mig", "capability",
         *(f"pid{i}" for i in range(4)), *(f"process_bytes{i}" for i in range(4))]
PLACE = {word: place for place, word in enumerate(WORDS)}
H100 = {"min_mw": 200_000, "default_mw": 700_000, "max_mw": 700_000, "requested_mw": 700_000, "idle_mw": 70_000,
        "burn_mw": 690_000, "idle_mc": 30_000, "burn_mc": 66_000, "tau_ms": 2_000, "idle_mhz": 345, "burn_mhz": 1_980,
        "changed_mc": 30_000, "memory_bytes": 80 << 30, "capability": 90}
PCI_BUSES = [0x1b, 0x2a, 0x9b, 0xba]  # of tests/topologies/two-sockets.xml; further GPUs are not in it


class FakeGpus:
    """`gpus.set(0, slow_ms=300)`, `gpus.get(0, "writes")`, `gpus.enforced_w()`."""

    def __init__(self, path, gpus=4, **words):
        self.path = pathlib.Path(path)
        self.count = gpus
        self.path.write_bytes(bytes(8 * (2 + MAX_GPUS * len(WORDS))))
        with open(self.path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        struct.pack_into("<2Q", self.memory, 0, MAGIC, gpus)
        self.uuids = [f"GPU-00000000-fa4e-4000-8000-{gpu:012x}" for gpu in range(gpus)]
        for gpu, uuid in enumerate(self.uuids):
            struct.pack_into("40s", self.memory, self._place(gpu, "uuid0"), uuid.encode())
            bus = PCI_BUSES[gpu] if gpu < len(PCI_BUSES) else 0xc0 + gpu
            self.set(gpu, **{**H100, "pci_bus": bus, "changed_at_ns": time.monotonic_ns(), **words})

    @staticmethod
    def _place(gpu, word):
        return 8 * (2 + gpu * len(WORDS) + PLACE[word])

    def set(self, gpu, **words):
        for word, value in words.items():
            struct.pack_into("<Q", self.memory, self._place(gpu, word), value)

    def set_all(self, **words):
        for gpu in range(self.count):
            self.set(gpu, **words)

    def get(self, gpu, word):
        return struct.unpack_from("<Q", self.memory, self._place(gpu, word))[0]

    def _reverted(self, gpu, ms):
        return self.get(gpu, "revert_ms") and self.get(gpu, "set_at_ns") and ms >= self.get(gpu, "revert_ms")

    def limits_w(self):
        """Requested and enforced limit of every GPU, as NVML would tell them now."""
        limits = []
        for gpu in range(self.count):
            ms = (time.monotonic_ns() - self.get(gpu, "set_at_ns")) / 1e6
            reverted = self._reverted(gpu, ms)
            requested = self.get(gpu, "default_mw" if reverted else "requested_mw")
            late = not reverted and self.get(gpu, "set_at_ns") and ms < self.get(gpu, "slow_ms")
            enforced = self.get(gpu, "enforced_before_mw") if late else max(requested, self.get(gpu, "clamp_mw"))
            limits.append((requested / 1000, enforced / 1000))
        return limits

    def environment(self, folder):
        """What a program under test needs to know of these GPUs; `folder` is its state folder."""
        return {"MOEVAR_NVML": os.environ["MOEVAR_FAKE_NVML"], "MOEVAR_FAKE_NVML_STATE": str(self.path),
                "MOEVAR_STATE_DIR": str(folder)}

    def left_behind(self, folder, gpu, previous_w=700, ours_w=(400,), **changes):
        """A capture in the state folder, as a run that died leaves it; its path."""
        folder.mkdir(mode=0o700, exist_ok=True)
        uuid = self.uuids[gpu]
        capture = {"schema": 1, "uuid": uuid, "boot_id": BOOT, "previous_mw": previous_w * 1000,
                   "previous_enforced_mw": previous_w * 1000,
                   "ours_mw": [previous_w * 1000, *(1000 * w for w in ours_w)], "pid": 4711,
                   "time": "2026-01-01T00:00:00Z", "study": "dead", **changes}
        path = folder / f"{uuid}.json"
        path.write_text(json.dumps(capture))
        return path
