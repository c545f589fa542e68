from django.urls import path

from leads import views

app_name = "leads"
urlpatterns = [
    path("", views.lead_list, name="list"),
    path("run/", views.run, name="run"),
    path("run/preview/", views.run_preview, name="run_preview"),
    path("<int:pk>/", views.lead_detail, name="detail"),
    path("<int:pk>/panel/", views.lead_panel, name="panel"),
    path("<int:pk>/why/", views.lead_why, name="why"),
    path("<int:pk>/reply/", views.simulate_reply, name="simulate_reply"),
]
