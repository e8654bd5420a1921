def largest_two(numbers):
    return sorted(numbers, reverse=True)[:2]
