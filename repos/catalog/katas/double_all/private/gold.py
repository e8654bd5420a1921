def double_all(numbers):
    return [2 * n for n in numbers]
