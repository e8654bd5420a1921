"""What the tests of test_shop.py are about."""

from decimal import Decimal

from . import prices
from .errors import OutOfStock


def total(numbers):
    return sum(numbers)


def receipt(basket):
    return [(name, count, prices.TABLE[name] * count) for name, count in basket.items()]


def countdown(start):
    while start:
        yield start
        start -= 1


def buy(item):
    error = OutOfStock("no %s today" % item)
    error.item = item
    raise error


def price(name):
    return prices.TABLE[name]


def tidy(names, by_length={}):
    names.sort()
    by_length.update({len(name): name for name in names})


def each(function, values):
    return [function(value) for value in values]


def careful(function, otherwise):
    try:
        return function()
    except LookupError:
        return otherwise


def first(count, values):
    return [value for _, value in zip(range(count), values)]


def adder(amount):
    return lambda value: value + amount


def tax(amount):
    return amount * Decimal("0.19")


class Basket:
    limit = 3

    def __init__(self, *names):
        self.names = list(names)

    def add(self, name):
        self.names.append(name)
        return self

    def __len__(self):
        return len(self.names)

    def __iter__(self):
        return iter(self.names)

    def __getitem__(self, at):
        return self.names[at]

    def __str__(self):
        return "%d items" % len(self)


class Till:
    open = False

    def __enter__(self):
        self.open = True
        return self

    def __exit__(self, kind, error, trace):
        self.open = False
        return kind is not None and issubclass(kind, OutOfStock)
