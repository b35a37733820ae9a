(select place, visits, minutes from {{ ref('places') }} except all select place, visits, minutes from {{ ref('expected_places') }} where batch = {{ var('batch') }})
union all
(select place, visits, minutes from {{ ref('expected_places') }} where batch = {{ var('batch') }} except all select place, visits, minutes from {{ ref('places') }})
