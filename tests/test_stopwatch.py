"""The time of a call is its own."""

import time

import torch

from hf_distill.stopwatch import seconds_of


def test_the_call_runs_once_and_its_time_is_told():
    calls = []
    seconds = seconds_of(lambda: calls.append(time.sleep(0.02)), torch.device("cpu"))
    assert len(calls) == 1 and 0.02 <= seconds < 2.0
