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


def test_a_pair():
    assert shop.longest(["a", "bb"]) == ("bb", 2)


def test_a_generator():
    assert list(shop.countdown(3)) == [3, 2, 1]


def test_an_exception_of_its_own():
    with pytest.raises(OutOfStock, match="no milk today") as caught:
        shop.buy("milk")
    assert isinstance(caught.value, ValueError)
    assert (caught.value.item, caught.value.code) == ("milk", 404)


def test_an_exception_that_is_awaited():
    try:
        shop.buy("milk")
        assert False, "it should have raised"
    except OutOfStock:
        pass


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


def test_what_is_handed_back():
    names = ["a"]
    assert shop.same(names) is names


def test_a_table_that_tests_change():
    prices.TABLE["tea"] = 9
    try:
        assert shop.price("tea") == 9
    finally:
        prices.TABLE["tea"] = 1.75


class TestUnit(unittest.TestCase):
    def test_in_a_class(self):
        self.assertEqual(shop.total([1]), 1)
        with self.assertRaises(OutOfStock):
            shop.buy("salt")


class TestBeside:
    """What can be had of code in the same process alone."""

    def test_a_function_that_it_calls(self):
        assert shop.each(lambda value: value + 1, [1, 2]) == [2, 3]

    def test_a_function_of_python_that_it_calls(self):
        assert shop.each(eval, ["1 + 1"]) == [2]

    def test_an_object(self):
        assert len(shop.Basket("tea")) == 1

    def test_a_block(self):
        with shop.Till():
            shop.buy("milk")

    def test_a_patched_function(self, monkeypatch):
        monkeypatch.setattr(shop, "price", lambda name: 7)
        assert shop.price("tea") == 7

    def test_what_is_printed(self, capsys):
        assert shop.total([]) == 0 and capsys.readouterr().out == ""

    def test_what_there_is(self):
        assert "total" in dir(shop)

    def test_an_error_that_is_caught(self):
        with pytest.raises(TypeError):
            shop.total([object()])
