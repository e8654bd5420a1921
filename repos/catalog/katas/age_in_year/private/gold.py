def age_in_year(birth_year, year):
    return year - birth_year
