def simple_interest(principal, rate, years):
    return principal * rate * years / 100
