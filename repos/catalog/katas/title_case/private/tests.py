def test_1(f):
    assert f('hello world') == 'Hello World'


def test_2(f):
    assert f('one') == 'One'


def test_3(f):
    assert f('a b') == 'A B'


def test_4(f):
    assert f('the red fox') == 'The Red Fox'
