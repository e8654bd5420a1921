def prepend_item(items, x):
    return [x] + items
