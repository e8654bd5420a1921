def replace_negatives(numbers):
    return [max(n, 0) for n in numbers]
