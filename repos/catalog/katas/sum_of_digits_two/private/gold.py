def sum_of_digits_two(n):
    return n // 10 + n % 10
