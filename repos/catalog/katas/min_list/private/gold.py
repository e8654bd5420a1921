def min_list(numbers):
    return min(numbers)
