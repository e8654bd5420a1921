def all_positive(numbers):
    return all(n > 0 for n in numbers)
