def min_of_two(a, b):
    return min(a, b)
