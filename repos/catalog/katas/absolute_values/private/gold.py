def absolute_values(numbers):
    return [abs(n) for n in numbers]
