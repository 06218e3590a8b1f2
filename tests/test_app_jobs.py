"""Jobs of the app: they wait for each other, stop, and fail alone."""

import threading
import time

import dicjax as dj
from dicjax._core import Stage
from dicjax.app.jobs import Job, Jobs, LOG_FILE, State


def _until(condition, timeout=20.0) -> None:
    end = time.time() + timeout
    while not condition():
        assert time.time() < end, "it took too long"
        time.sleep(0.005)


def test_jobs_wait_for_each_other_and_failures_stop_none(caplog):
    go, order = threading.Event(), []

    def work(job: Job) -> None:
        order.append(job.name)
        if job.name == "first":
            go.wait(20)
        if job.name == "refused":
            raise ValueError("The recording is silent, `--budget` or not.")
        if job.name == "broken":
            raise KeyError("x")

    jobs = Jobs(work)
    made = {x: Job(x, x) for x in ("first", "taken out", "refused", "broken", "last")}
    for job in made.values():
        jobs.submit(job)
    _until(lambda: made["first"].state is State.RUNNING)
    assert [jobs.num_ahead(job) for job in made.values()] == [0, 1, 2, 3, 4]
    jobs.cancel(made["taken out"])
    assert made["taken out"].state is State.CANCELLED
    assert jobs.num_ahead(made["last"]) == 3
    go.set()
    _until(lambda: made["last"].state is State.DONE)
    assert order == ["first", "refused", "broken", "last"]
    assert made["refused"].state is State.REFUSED
    assert made["broken"].state is State.FAILED
    assert "KeyError('x')" in made["broken"].message
    assert LOG_FILE in made["broken"].message
    assert "KeyError" in caplog.text
    jobs.close(5.0)


def test_a_stopped_job_still_writes_what_it_has():
    began = threading.Event()

    def work(job: Job) -> None:
        began.set()
        try:
            while True:
                job.report(Stage("simulating_the_posterior"), 3, 8)
                time.sleep(0.001)
        except dj.Cancelled:
            job.report(Stage("writing"), 3, 8)

    jobs, job = Jobs(work), Job("a", "a")
    jobs.submit(job)
    assert began.wait(20)
    jobs.cancel(job)
    _until(lambda: job.state.is_over)
    assert job.state is State.DONE
    jobs.close(5.0)


def test_closing_ends_the_running_job_and_waits_for_it():
    began, kept = threading.Event(), []

    def work(job: Job) -> None:
        try:
            while True:
                began.set()
                job.report(Stage("simulating_the_posterior"), 3, 8)
                time.sleep(0.001)
        except dj.Cancelled:
            time.sleep(0.05)
            kept.append(job.name)

    jobs = Jobs(work)
    jobs.submit(Job("a", "a"))
    jobs.submit(Job("b", "b"))
    assert began.wait(20)
    jobs.close(20.0)
    assert kept == ["a"]


def test_a_job_stopped_with_nothing_is_cancelled():
    def work(job: Job) -> None:
        job.stop()
        job.report(Stage("simulating_the_posterior"), 0, 8)

    jobs, job = Jobs(work), Job("a", "a")
    jobs.submit(job)
    _until(lambda: job.state.is_over)
    assert job.state is State.CANCELLED
    assert job.message
    jobs.close(5.0)
