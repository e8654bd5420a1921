"""Exits with 0 when `roman.to_roman` is right."""

import roman

EXPECTED = {1: "I", 3: "III", 4: "IV", 9: "IX", 14: "XIV", 40: "XL", 90: "XC", 400: "CD", 1994: "MCMXCIV", 3999: "MMMCMXCIX"}

for number, text in EXPECTED.items():
    assert roman.to_roman(number) == text, number

for number in (0, -1, 4000):
    try:
        roman.to_roman(number)
    except ValueError:
        continue
    raise AssertionError(number)
