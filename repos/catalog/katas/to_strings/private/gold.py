def to_strings(numbers):
    return [str(n) for n in numbers]
