def count_even(numbers):
    return sum(n % 2 == 0 for n in numbers)
