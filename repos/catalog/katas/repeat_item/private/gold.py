def repeat_item(x, n):
    return [x] * n
