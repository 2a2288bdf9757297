"""A long task tells how far it is; whoever has its id can look."""

import time

from celeriac import Celeriac
from celeriac.exceptions import SoftTimeLimitExceeded

app = Celeriac("progress")


@app.task(bind=True, soft_time_limit=30)
def count_to(self, n, seconds_each=0.02):
    done = 0
    try:
        for done in range(1, n + 1):
            time.sleep(seconds_each)
            if done % 10 == 0:
                self.update_state(state="COUNTING", meta={"done": done, "of": n})
    except SoftTimeLimitExceeded:
        return f"stopped at {done}"
    return f"counted to {done}"


def main():
    result = count_to.delay(100)
    while not result.ready():
        if result.state == "COUNTING":
            print("{done} of {of}".format(**result.info))
        time.sleep(0.1)
    print(result.get())


if __name__ == "__main__":
    main()
