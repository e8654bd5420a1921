def test_1(f):
    assert f('abc') == 'cba'


def test_2(f):
    assert f('') == ''


def test_3(f):
    assert f('a') == 'a'


def test_4(f):
    assert f('hello world') == 'dlrow olleh'


def test_5(f):
    assert f('Ab1') == '1bA'
