"""What a killed run leaves: every phase that was finished, and nothing of the one that was not.

    kill_test.py COMMAND...     COMMAND, with arguments appended, starts record_writer

The writer is killed by the kernel in the midst of writing its last phase. Then, and while a study
is not finished, h5py opens study.h5 and reads the phases.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np

PHASES, DEVICES, STEPS, LAYERS = 4, 7, 16, 58
FIELDS = ("tokens", "dispatch_ns", "expert_ns", "arrival_ns", "wait_ns", "combine_ns")


def write(command, directory, steps, end):
    sizes = [str(n) for n in (PHASES, DEVICES, steps, LAYERS)]
    done = subprocess.run([*command, str(directory), *sizes, end], capture_output=True, text=True)
    return done.returncode


def read_phase(study, name):
    phase = study["phases"][name]
    arrays = {field: phase[field][...] for field in FIELDS}
    layer = arrays["dispatch_ns"] + arrays["expert_ns"] + arrays["wait_ns"] + arrays["combine_ns"]
    assert np.array_equal(layer.min(axis=0), phase["layer/layer_ns"][...]), name
    assert np.array_equal(layer.max(axis=0), phase["layer/layer_ns"][...]), name
    return arrays


def main(command):
    os.environ.setdefault("OMPI_MCA_orte_abort_on_non_zero_status", "1")
    with tempfile.TemporaryDirectory() as folder:
        whole, left, killed = (pathlib.Path(folder) / name for name in ("whole", "left", "killed"))
        assert write(command, whole, STEPS, "finish") == 0
        assert write(command, left, STEPS, "leave") == 0
        # the limit that kills lies below the size of a phase file of this many steps
        assert write(command, killed, STEPS, "kill") != 0, "the writer was not killed"
        assert not (killed / "summary.json").exists(), "the writer lived on"

        with h5py.File(whole / "study.h5") as study:
            assert study.attrs["complete"] == 1
            expected = {name: read_phase(study, name) for name in study["phases"]}
        assert len(expected) == PHASES

        checks = 0
        for directory, finished in ((left, PHASES), (killed, PHASES - 1)):
            with h5py.File(directory / "study.h5") as study:
                assert study.attrs["complete"] == 0
                names = sorted(study["phases"])
                assert names == [f"{n:04}" for n in range(finished)], names
                for name in names:
                    for field, values in read_phase(study, name).items():
                        assert np.array_equal(values, expected[name][field]), (name, field)
                        checks += 1
        last = f"{PHASES - 1:04}.h5"
        assert not (killed / "phases" / last).exists()
        assert (killed / "phases" / (last + ".tmp")).exists(), "killed, but not amid the write"
        print(f"{checks} arrays of finished phases read back")


if __name__ == "__main__":
    main(sys.argv[1:])
