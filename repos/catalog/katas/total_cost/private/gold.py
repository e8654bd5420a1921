def total_cost(price, quantity):
    return price * quantity
