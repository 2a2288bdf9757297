"""Work that fails now and then: tried again by itself, and somebody is told when it fails for good."""

from celeriac import Celeriac, Task

app = Celeriac("retries")


class Watched(Task):
    """A base class with hooks: what happens to its tasks is printed, and so becomes a log line of the worker."""

    abstract = True

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        print(f"{self.name}{tuple(args)} is tried again: {exc}")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        print(f"{self.name}{tuple(args)} has failed: {exc}")


@app.task(
    bind=True, base=Watched, autoretry_for=(ConnectionError,), retry_backoff=0.1, retry_jitter=False, max_retries=3
)
def fetch(self, host, works_at):
    """Stands for a flaky service: works on its ``works_at``-th try."""
    if self.request.retries + 1 < works_at:
        raise ConnectionError(f"{host} did not answer")
    return f"{host} answered on try {self.request.retries + 1}"


@app.task
def report(request, error, traceback):
    """Called in the worker when a task it is linked to has failed."""
    print(f"page somebody: {request.task} [{request.id}]: {error}")


def main():
    flaky = fetch.delay("flaky.example", 3)
    broken = fetch.apply_async(("broken.example", 99), link_error=report.s(), retries=2)
    print(flaky.get(timeout=60))
    error = broken.get(timeout=60, propagate=False)
    print(f"{broken.state}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
