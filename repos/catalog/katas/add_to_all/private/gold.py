def add_to_all(numbers, n):
    return [x + n for x in numbers]
