def max_list(numbers):
    return max(numbers)
