import unittest
from collections import OrderedDict
from decimal import Decimal

import pytest

import shop
from shop import prices
from shop.errors import OutOfStock


@pytest.mark.parametrize("numbers, expected", [([1, 2], 3), ([40, 1, 1], 42), ([], 0)])
def test_plain_values(numbers, expected):
    assert shop.total(numbers) == expected


def test_nested_values():
    assert shop.receipt(OrderedDict(tea=2, milk=1)) == [("tea", 2, 3.5), ("milk", 1, 1.25)]


def test_values_of_the_library():
    assert shop.tax(Decimal("10")) == Decimal("1.9000")


def test_a_generator():
    assert list(shop.countdown(3)) == [3, 2, 1]


def test_an_exception_of_its_own():
    with pytest.raises(OutOfStock, match="no milk today") as caught:
        shop.buy("milk")
    assert isinstance(caught.value, ValueError)
    assert caught.value.item == "milk"


def test_a_type_error():
    with pytest.raises(TypeError):
        shop.total([None])


def test_a_builtin_exception():
    with pytest.raises(KeyError, match="gold"):
        shop.price("gold")


def test_what_is_done_in_place():
    names, lengths = ["bb", "a"], {}
    shop.tidy(names, by_length=lengths)
    assert names == ["a", "bb"]
    assert lengths == {1: "a", 2: "bb"}


def test_functions_both_ways():
    seen = []
    assert shop.each(lambda value: seen.append(value) or value + 1, (1, 2)) == [2, 3]
    assert seen == [1, 2]
    assert shop.each(str.upper, "ab") == ["A", "B"]
    assert shop.each(shop.adder(3), [4]) == [7]
    assert shop.first(2, iter([5, 6, 7])) == [5, 6]


def test_exceptions_both_ways():
    def fails(kind):
        raise kind("on purpose")

    assert shop.careful(lambda: fails(KeyError), "caught") == "caught"
    with pytest.raises(OSError, match="on purpose"):
        shop.careful(lambda: fails(OSError), "caught")


def test_an_object():
    basket = shop.Basket("tea")
    assert basket.add("milk").limit == 3
    assert len(basket) == 2 and list(basket) == ["tea", "milk"] and basket[-1] == "milk"
    assert str(basket) == "2 items"
    assert isinstance(basket, shop.Basket) and not isinstance(basket, shop.Till)
    basket.names.append("salt")
    assert basket.names == ["tea", "milk", "salt"]
    with pytest.raises(AttributeError):
        basket.weight


def test_a_table_that_tests_change():
    prices.TABLE["tea"] = 9
    try:
        assert shop.price("tea") == 9
    finally:
        prices.TABLE["tea"] = 1.75


def test_a_patched_function(monkeypatch):
    monkeypatch.setattr(shop, "price", lambda name: 7)
    assert shop.price("tea") == 7


def test_a_context():
    with shop.Till() as till:
        assert till.open
        shop.buy("milk")
    assert not till.open


class TestUnit(unittest.TestCase):
    def test_in_a_class(self):
        self.assertEqual(shop.total([1]), 1)
        with self.assertRaises(OutOfStock):
            shop.buy("salt")
