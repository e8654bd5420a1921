def count_negative(numbers):
    return sum(n < 0 for n in numbers)
