def both_even(a, b):
    return a % 2 == 0 and b % 2 == 0
