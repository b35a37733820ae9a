(select home, visits, minutes from {{ ref('homes') }} except all select home, visits, minutes from {{ ref('expected_homes') }} where batch = {{ var('batch') }})
union all
(select home, visits, minutes from {{ ref('expected_homes') }} where batch = {{ var('batch') }} except all select home, visits, minutes from {{ ref('homes') }})
