from django.urls import path

from leads import views, views_erase, views_import, views_list

app_name = "leads"
urlpatterns = [
    path("", views_list.lead_list, name="list"),
    path("export.csv", views_list.lead_csv, name="csv"),
    path("import/", views_import.import_upload, name="import"),
    path("import/<int:pk>/", views_import.import_job, name="import_job"),
    path("import/<int:pk>/progress/", views_import.import_progress, name="import_progress"),
    path("import/<int:pk>/columns/", views_import.import_map, name="import_map"),
    path("import/<int:pk>/start/", views_import.import_start, name="import_start"),
    path("import/<int:pk>/discard/", views_import.import_discard, name="import_discard"),
    path("import/<int:pk>/resume/", views_import.import_resume, name="import_resume"),
    path("import/<int:pk>/remarks.csv", views_import.import_remarks, name="import_remarks"),
    path("run/", views.run, name="run"),
    path("run/preview/", views.run_preview, name="run_preview"),
    path("<int:pk>/", views.lead_detail, name="detail"),
    path("<int:pk>/panel/", views.lead_panel, name="panel"),
    path("<int:pk>/edit/", views.lead_edit, name="edit"),
    path("<int:pk>/save/", views.lead_save, name="save"),
    path("<int:pk>/owner/", views.lead_owner, name="owner"),
    path("<int:pk>/erase/", views_erase.lead_erase, name="erase"),
    path("<int:pk>/erase/now/", views_erase.lead_erase_now, name="erase_now"),
    path("<int:pk>/reply/", views.simulate_reply, name="simulate_reply"),
]
