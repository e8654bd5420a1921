import sys

lines = sys.stdin.read().splitlines()
if lines:
    print(max(lines, key=len))
