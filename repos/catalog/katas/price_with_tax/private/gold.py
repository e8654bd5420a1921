def price_with_tax(price, tax):
    return price + price * tax / 100
