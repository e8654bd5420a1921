def contains_zero(numbers):
    return 0 in numbers
