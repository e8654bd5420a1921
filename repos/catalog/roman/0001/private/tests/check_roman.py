"""Exits with 0 when `roman.to_roman` is right.

An exit status says little when the submission can end the process that has it, so `roman` is
imported in a child that only answers; this process compares.
"""

import subprocess
import sys

EXPECTED = {1: "I", 3: "III", 4: "IV", 9: "IX", 14: "XIV", 40: "XL", 90: "XC", 400: "CD", 1994: "MCMXCIV", 3999: "MMMCMXCIX"}
REFUSED = (0, -1, 4000)

ANSWER = """
import roman, sys
for number in sys.argv[1:]:
    try:
        print(roman.to_roman(int(number)))
    except ValueError:
        print("ValueError")
"""

numbers = [str(number) for number in (*EXPECTED, *REFUSED)]
child = subprocess.run([sys.executable, "-c", ANSWER, *numbers], stdout=subprocess.PIPE, text=True)
expected = [*EXPECTED.values(), *("ValueError" for _ in REFUSED)]
sys.exit(child.stdout.splitlines() != expected)
