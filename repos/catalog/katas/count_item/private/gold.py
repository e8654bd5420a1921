def count_item(items, x):
    return items.count(x)
