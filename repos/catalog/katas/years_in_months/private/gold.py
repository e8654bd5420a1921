def years_in_months(years):
    return years * 12
