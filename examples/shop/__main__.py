"""python -m shop: place an order and wait for it."""

from shop.orders.tasks import place

result = place.delay("Ada", [["pen", 2], ["paper", 5]])
print(result.get(timeout=60), "EUR")
(mail,) = result.children
print(mail.get(timeout=60))
