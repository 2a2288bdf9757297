"""Tasks of one part of the project; they know no app."""

from celeriac import shared_task
from celeriac.utils.log import get_task_logger
from shop.mail.tasks import send

logger = get_task_logger(__name__)


@shared_task(bind=True)
def place(self, customer, items):
    total = sum(price for _, price in items)
    logger.info("%s orders %d things", customer, len(items))
    send.delay(customer, f"Your order {self.request.id}: {total} EUR")
    return total
