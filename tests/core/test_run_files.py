from segwright.core import run_files


def test_no_two_files_of_a_run_share_a_name():
    names = [value for name, value in vars(run_files).items() if name.endswith("_FILE")]
    assert len(names) == len(set(names)) > 0
