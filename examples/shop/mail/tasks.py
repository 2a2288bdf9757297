"""Tasks of another part: these have a queue of their own."""

from celeriac import shared_task
from celeriac.utils.log import get_task_logger

logger = get_task_logger(__name__)


@shared_task(bind=True)
def send(self, customer, text):
    logger.info("to %s, from queue %s: %s", customer, self.request.delivery_info["routing_key"], text)
    return f"told {customer}"
