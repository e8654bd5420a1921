def even_indices_sum(numbers):
    return sum(numbers[::2])
