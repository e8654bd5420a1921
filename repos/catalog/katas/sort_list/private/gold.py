def sort_list(numbers):
    return sorted(numbers)
