def count_greater(numbers, limit):
    return sum(n > limit for n in numbers)
